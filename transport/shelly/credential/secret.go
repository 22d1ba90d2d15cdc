package credential

import (
	"fmt"
	"log/slog"
)

// concealed is what is printed in place of a secret.
const concealed = "[secret]"

// hidden makes the type that embeds it print as concealed, whatever the verb.
type hidden struct{}

// Format implements [fmt.Formatter].
func (hidden) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(concealed)) }

// String implements [fmt.Stringer].
func (hidden) String() string { return concealed }

// GoString implements [fmt.GoStringer].
func (hidden) GoString() string { return concealed }

// LogValue implements [slog.LogValuer].
func (hidden) LogValue() slog.Value { return slog.StringValue(concealed) }

// MarshalText keeps it out of JSON.
func (hidden) MarshalText() ([]byte, error) { return []byte(concealed), nil }

// Secret is a text that must not be seen by accident: it prints, logs and
// marshals as "[secret]".
type Secret struct {
	hidden
	text *string // behind a pointer, because fmt asks no method of what is in an unexported field
}

// Conceal makes a Secret of a text.
func Conceal(text string) Secret { return Secret{text: &text} }

// Reveal returns the text; the zero Secret has none.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}
