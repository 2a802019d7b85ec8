"""The director as a document: what a configuration file states, and what the API speaks.

schema -> what may be said         checking -> every fault of a document, with its place
services -> the table's terms      marks -> what gets a firewall mark
file -> all of it, in TOML
"""
