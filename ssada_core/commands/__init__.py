"""The commands of ``ssada``, one file each."""
