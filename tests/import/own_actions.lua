-- Layers 1 to 3: commands and functions.
bash = {
    delay = 5,
    maxProcesses = 3,
    onCreate = "cp -r ^sourcePath ^targetPathdir",
    onModify = "cp -r ^sourcePath ^targetPathdir",
    onDelete = "rm -rf ^targetPath",
    onMove = "mv ^o.targetPath ^d.targetPath",
    onStartup = '^if [ "$(ls -A ^source)" ]; then cp -r ^source* ^target; fi',
}
sync { bash, source = "/srv/in", target = "/srv/out" }

convert = {
    action = function(inlet)
        local event = inlet.getEvent()
        spawn(event, "/usr/bin/convert", event.source .. event.path)
    end,
}
sync { convert, source = "/srv/pictures" }

sync {
    default.rsync,
    source = "/srv/posted",
    target = "web1:/srv/posted",
    prepare = function(config, level)
        config.delete = false
    end,
}

sync {
    default.rsync, source = "/srv/hooked", target = "web1:/srv/hooked",
    action = function(inlet) os.execute("touch /tmp/driftless-import-was-here") end,
    onCreate = function(event) spawnShell(event, "true") end,
}
