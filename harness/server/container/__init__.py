"""What runs inside the images of docker/. All but `client` need the standard library only."""
