"""Sources of bytes: local and remote files, object stores, archives, and ranged reads of them."""
