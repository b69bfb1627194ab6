"""Rewards over HTTP: the server (`app`), the reward that asks it (`client`), and what goes over the wire (`wire`): JSON and PNG."""
