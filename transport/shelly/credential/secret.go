package credential

import (
	"fmt"
	"log/slog"
)

// concealed is printed in place of a secret.
const concealed = "[secret]"

// hidden makes a type that embeds it print as concealed with every verb.
type hidden struct{}

// Format implements [fmt.Formatter].
func (hidden) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(concealed)) }

// String implements [fmt.Stringer].
func (hidden) String() string { return concealed }

// GoString implements [fmt.GoStringer].
func (hidden) GoString() string { return concealed }

// LogValue implements [slog.LogValuer].
func (hidden) LogValue() slog.Value { return slog.StringValue(concealed) }

// MarshalText keeps the secret out of JSON.
func (hidden) MarshalText() ([]byte, error) { return []byte(concealed), nil }

// Secret is a text that must not become visible by accident: it prints, logs and
// marshals as "[secret]".
type Secret struct {
	hidden
	text *string // a pointer, because fmt calls no methods on unexported fields
}

// Conceal returns the text as a Secret.
func Conceal(text string) Secret { return Secret{text: &text} }

// Reveal returns the text, which is empty for the zero Secret.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}
