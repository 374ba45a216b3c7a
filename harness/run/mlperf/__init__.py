"""MLPerf's own: rules, LoadGen, its logs and verdict, its user.conf, the reference's words."""
