"""Nemo (Birrer and Bustamante, 2005): clusters with crews; see engine.py for what is the paper's and what is ours."""
