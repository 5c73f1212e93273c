settings{ nodaemon = true }
sync{ default.direct, source = "@SOURCE@", target = "@TARGET@/" }
