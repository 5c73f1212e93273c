-- The recipe for two ways, once within a machine and once between two.
local options = { archive = true, update = true, temp_dir = "/var/tmp/lsyncd" }
sync { default.rsync, source = "/srv/a", target = "/srv/b/", delete = false, rsync = options }
sync { default.rsync, source = "/srv/b", target = "/srv/a/", delete = false, rsync = options }
sync { default.rsync, source = "/srv/c", target = "other:/srv/c", rsync = options }
sync { default.rsync, source = "/srv/d", target = "/mnt/d" }
