"""An index in an object store, and its local mirror."""
