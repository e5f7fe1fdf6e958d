"""A seeded sky and camera with known truth. It shares no formula of the reduction: neither its PSF nor its optics nor its detector."""
