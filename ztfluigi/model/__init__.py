"""The words every room shares: ids, images, columns, mask bits, errors, configuration, provenance. No input or output."""
