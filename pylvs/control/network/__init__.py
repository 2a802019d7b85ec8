"""The network around the director: watched, claimed from, asked about, and one director to each."""
