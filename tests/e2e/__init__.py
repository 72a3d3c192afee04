"""The product from outside: processes, OpenSSH, a browser."""
