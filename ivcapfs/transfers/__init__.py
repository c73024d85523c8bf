"""Whole files to and from the platform without a mount: what ``ivcapfs put`` and ``ivcapfs get`` do."""
