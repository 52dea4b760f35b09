"""What a batch says about the champion: measuring, performance, and one verdict."""
