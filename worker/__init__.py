"""The maker: claims shards, runs models, stores what they make."""
