"""What can go wrong with images."""

from e2e.cluster.errors import ClusterError


class ImageError(ClusterError):
    """An image can't be built here; the message says what is missing or how the build ended."""
