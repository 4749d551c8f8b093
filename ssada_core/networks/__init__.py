"""Segmentation networks: BiSeNet and its backbones."""
