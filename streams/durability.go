package streams

import "context"

// warnUnlessDurable logs a warning if Redis acknowledges an append before it is on disk: a
// crash of its machine can then lose acknowledged events. A Redis that does not show its
// configuration, such as a hosted one, is trusted.
func (l *Log) warnUnlessDurable(ctx context.Context) {
	settings, err := l.general.ConfigGet(ctx, "append*").Result()
	if err != nil {
		l.logger.Debug("Redis does not show its configuration", "error", err)
		return
	}
	if settings["appendonly"] != "yes" || settings["appendfsync"] != "always" {
		l.logger.Warn("Redis may lose acknowledged events when its machine crashes: run it with appendonly yes and appendfsync always",
			"appendonly", settings["appendonly"], "appendfsync", settings["appendfsync"])
	}
}
