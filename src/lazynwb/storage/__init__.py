"""Where bytes come from: the files that a call names, and how to read ranges of them."""
