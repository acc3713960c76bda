"""The DANDI archive: URLs of dandisets and assets, and a client of the REST API."""
