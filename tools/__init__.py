"""Tools of the trade: conformance to captures of Linux, the oracle, the style check."""
