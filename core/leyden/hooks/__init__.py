"""The extension surface: service protocols, hook specifications, records and the registry."""
