"""Object stores and web servers: one module per kind of store."""
