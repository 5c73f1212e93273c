-- One file of a directory.
sync {
    default.rsync,
    source = "/etc",
    target = "web1:/etc/mirror/",
    rsync = { _extra = { "--include=hosts", "--exclude=*" } },
}
