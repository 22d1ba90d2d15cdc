package streams

import "context"

// warnUnlessDurable says so when Redis would acknowledge an append before it is
// on disk: then a crash of its machine can lose what was acknowledged. A Redis
// that keeps its configuration to itself, as hosted ones do, is trusted.
func (l *Log) warnUnlessDurable(ctx context.Context) {
	settings, err := l.general.ConfigGet(ctx, "append*").Result()
	if err != nil {
		l.logger.Debug("Redis does not say how durable it is", "error", err)
		return
	}
	if settings["appendonly"] != "yes" || settings["appendfsync"] != "always" {
		l.logger.Warn("Redis may lose acknowledged events when its machine crashes: run it with appendonly yes and appendfsync always",
			"appendonly", settings["appendonly"], "appendfsync", settings["appendfsync"])
	}
}
