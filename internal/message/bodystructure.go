package message

import (
	"bytes"
	"strconv"
)

// AppendBodyStructure appends the structure of a part as IMAP sends it: BODYSTRUCTURE with the extension data when
// extended, else BODY (RFC 3501, section 7.4.2; RFC 9051, section 7.5.2, which treats message/global as message/rfc822).
// The result is ASCII.
func AppendBodyStructure(dst []byte, p *Part, extended bool) []byte {
	dst = append(dst, '(')
	if p.IsMultipart() {
		for _, c := range p.Parts {
			dst = AppendBodyStructure(dst, c, extended)
		}
		dst = append(dst, ' ')
		dst = appendIMAPText(dst, p.Subtype)
		if extended {
			dst = append(dst, ' ')
			dst = appendParams(dst, p.Params)
			dst = appendExtension(dst, p)
		}
		return append(dst, ')')
	}
	dst = appendBodyFields(dst, p)
	if p.Message != nil {
		dst = append(dst, ' ')
		dst = AppendEnvelope(dst, p.Message.Header)
		dst = append(dst, ' ')
		dst = AppendBodyStructure(dst, p.Message, extended)
	}
	if p.Message != nil || p.Type == "text" {
		dst = append(dst, ' ')
		dst = strconv.AppendInt(dst, p.Lines, 10)
	}
	if extended {
		dst = append(dst, ' ')
		dst = appendFieldValue(dst, p.Header, "Content-MD5")
		dst = appendExtension(dst, p)
	}
	return append(dst, ')')
}

// appendBodyFields appends type, subtype, parameters, id, description, encoding and octets of a single part.
func appendBodyFields(dst []byte, p *Part) []byte {
	dst = appendIMAPText(dst, p.Type)
	dst = append(dst, ' ')
	dst = appendIMAPText(dst, p.Subtype)
	dst = append(dst, ' ')
	if len(p.Params) == 0 && p.Type == "text" && p.Subtype == "plain" && !p.Header.Has("Content-Type") {
		dst = append(dst, `("charset" "us-ascii")`...) // RFC 2045, section 5.2
	} else {
		dst = appendParams(dst, p.Params)
	}
	dst = append(dst, ' ')
	dst = appendFieldValue(dst, p.Header, "Content-ID")
	dst = append(dst, ' ')
	dst = appendFieldValue(dst, p.Header, "Content-Description")
	dst = append(dst, ' ')
	dst = appendIMAPText(dst, p.Encoding)
	dst = append(dst, ' ')
	return strconv.AppendInt(dst, p.Size(), 10)
}

func appendFieldValue(dst []byte, h Header, name string) []byte {
	v := h.Get(name)
	return appendNString(dst, v, v != nil)
}

// appendExtension appends disposition, language and location.
func appendExtension(dst []byte, p *Part) []byte {
	dst = append(dst, ' ')
	if p.Disposition == "" {
		dst = append(dst, "NIL"...)
	} else {
		dst = append(dst, '(')
		dst = appendIMAPText(dst, p.Disposition)
		dst = append(dst, ' ')
		dst = appendParams(dst, p.DispositionParams)
		dst = append(dst, ')')
	}
	dst = append(dst, ' ')
	dst = appendLanguages(dst, p.Header.Get("Content-Language"))
	dst = append(dst, ' ')
	return appendFieldValue(dst, p.Header, "Content-Location")
}

// appendLanguages appends one tag as a string and several as a list (RFC 3282).
func appendLanguages(dst, v []byte) []byte {
	if bytes.IndexByte(v, '(') >= 0 {
		v = dropComments(v)
	}
	var tags [][]byte
	for t := range bytes.SplitSeq(v, []byte{','}) {
		if t = trimSpace(t); len(t) > 0 && len(tags) < 100 {
			tags = append(tags, t)
		}
	}
	switch len(tags) {
	case 0:
		return append(dst, "NIL"...)
	case 1:
		return appendIMAPString(dst, tags[0])
	}
	for i, t := range tags {
		sep := byte(' ')
		if i == 0 {
			sep = '('
		}
		dst = append(dst, sep)
		dst = appendIMAPString(dst, t)
	}
	return append(dst, ')')
}

// appendParams appends a parameter list, NIL when it is empty. A value that is not ASCII goes out in the notation that
// it came in: RFC 2231 where it was that, else encoded words, which is what clients expect of a plain name.
func appendParams(dst []byte, ps Params) []byte {
	if len(ps) == 0 {
		return append(dst, "NIL"...)
	}
	for i := range ps {
		p := &ps[i]
		sep := byte(' ')
		if i == 0 {
			sep = '('
		}
		dst = append(dst, sep)
		name, value := p.Name, p.Value
		if p.extended && !isPlainASCII([]byte(value)) {
			name += "*"
			value = string(appendExtValue(nil, value))
		}
		dst = appendIMAPText(dst, name)
		dst = append(dst, ' ')
		dst = appendIMAPText(dst, value)
	}
	return append(dst, ')')
}

// appendExtValue writes an extended value of RFC 2231, section 4, in UTF-8.
func appendExtValue(dst []byte, s string) []byte {
	dst = append(dst, "utf-8''"...)
	for i := range len(s) {
		dst = appendPercentOctet(dst, s[i])
	}
	return dst
}

// appendPercentOctet writes an attribute-char as it is and all else in hex.
func appendPercentOctet(dst []byte, c byte) []byte {
	const hex = "0123456789ABCDEF"
	if c < 0x80 && isToken(c) && c != '*' && c != '\'' && c != '%' {
		return append(dst, c)
	}
	return append(dst, '%', hex[c>>4], hex[c&15])
}
