"""The commands of ``leyden``, thin over ``leyden_cli.client.Client``."""
