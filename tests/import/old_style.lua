-- lsyncd 2.0
settings = { logfile = "/var/log/lsyncd.log", delay = 7, "nodaemon" }
sync { default.rsync, source = "/srv/old", target = "web1:/srv/old", rsyncOps = { "-az", "--exclude", "*.bak" } }
