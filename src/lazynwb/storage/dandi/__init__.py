"""The DANDI archive: URLs of dandisets and assets, and the REST API behind them."""
