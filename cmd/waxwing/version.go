package main

import (
	"runtime"
	"runtime/debug"

	"waxwing/internal/build"
)

type versionCommand struct{}

func (versionCommand) Run(s *session) error {
	info := map[string]string{"version": build.Version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, set := range b.Settings {
			if set.Key == "vcs.revision" {
				info["revision"] = set.Value
			}
		}
	}
	return s.print(info, func(p *printer) {
		p.row("waxwing", info["version"])
		p.row("built with", info["go"], info["platform"])
	})
}
