"""The routes of the API by meaning."""
