"""Similar moments: the user's own, and moments shared by at least k users, which may be shown to others."""
