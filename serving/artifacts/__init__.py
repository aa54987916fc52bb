"""How a model gets to this machine: fetched from where it is kept, held against its digest, cached on the node."""
