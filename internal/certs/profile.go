package certs

import "crypto/tls"

// suites are the TLS 1.2 suites: ephemeral ECDH with an AEAD cipher, set by hand as Go's default still takes CBC.
// Those of TLS 1.3 are all of this kind and not configurable.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// groups are the key exchange groups, the hybrid with ML-KEM-768 first.
var groups = []tls.CurveID{tls.X25519MLKEM768, tls.X25519, tls.CurveP256, tls.CurveP384}

// Tickets says whether sessions may be resumed.
type Tickets bool

// The uses of session tickets. Without them a handshake of a returning client costs a signature more. With them,
// Microsoft's mail servers break off on port 25 (golang/go#70232), and IMAP clients that read and write one OpenSSL
// connection from two threads (imaplib2, so offlineimap) lose the command that they write while a ticket comes in.
const (
	WithTickets    Tickets = true
	WithoutTickets Tickets = false
)

// ServerConfig is the profile of a listener with the certificates of k.
func (k *Keyring) ServerConfig(tickets Tickets) *tls.Config {
	return &tls.Config{
		GetCertificate:         k.GetCertificate,
		MinVersion:             tls.VersionTLS12,
		MaxVersion:             tls.VersionTLS13,
		CipherSuites:           append([]uint16(nil), suites...),
		CurvePreferences:       append([]tls.CurveID(nil), groups...),
		SessionTicketsDisabled: !bool(tickets),
		Renegotiation:          tls.RenegotiateNever,
	}
}
