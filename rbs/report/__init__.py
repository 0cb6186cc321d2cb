"""Results on one page: CSV files and pictures in, a self-contained HTML file out, without torch."""
