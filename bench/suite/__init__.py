"""What bench/run is made of: machine, servers, load, scenarios, table."""
