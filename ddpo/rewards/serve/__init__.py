"""Rewards over HTTP: the server (`app`), the client's reward (`client`), the format (`wire`)."""
