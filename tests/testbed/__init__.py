"""Real counterparts from package registries, fetched once into ``.cache/testbed`` of the checkout. No root needed."""
