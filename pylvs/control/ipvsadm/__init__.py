"""ipvsadm as people and scripts know it: its command lines, its listings, its words.

words -> grammar -> rules -> executor -> render -> text
"""
