"""What runs inside the images of docker/. `owner`, `backends` and `server` need the standard library only."""
