"""Confusion matrices, mIoU and the pages that show them."""
