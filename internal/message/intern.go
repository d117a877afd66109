package message

// Names and tokens that most mail repeats; looking them up keeps them from being allocated for each message.
var interned = func() map[string]string {
	m := make(map[string]string, 128)
	for _, s := range []string{
		"Received", "Return-Path", "Delivered-To", "From", "To", "Cc", "CC", "Bcc", "Sender", "Reply-To", "Subject", "Date",
		"Message-ID", "Message-Id", "In-Reply-To", "References", "MIME-Version", "Mime-Version", "Content-Type",
		"Content-Transfer-Encoding", "Content-Disposition", "Content-ID", "Content-Id", "Content-Description",
		"Content-Language", "Content-Location", "Content-MD5", "DKIM-Signature", "ARC-Seal", "ARC-Message-Signature",
		"ARC-Authentication-Results", "Authentication-Results", "Received-SPF", "List-Unsubscribe",
		"List-Unsubscribe-Post", "List-Id", "List-ID", "List-Post", "List-Help", "List-Archive", "Precedence",
		"Auto-Submitted", "User-Agent", "X-Mailer", "X-Priority", "Importance", "Thread-Topic", "Thread-Index",
		"Accept-Language", "X-Originating-IP", "X-Google-Smtp-Source", "X-Received", "X-Gm-Message-State",
		"X-Google-DKIM-Signature", "X-Spam-Status", "X-Spam-Score", "X-MS-Has-Attach", "Feedback-ID", "Resent-From",
		"text", "plain", "html", "multipart", "mixed", "alternative", "related", "signed", "report", "digest",
		"encrypted", "application", "octet-stream", "pdf", "image", "png", "jpeg", "gif", "message", "rfc822", "global",
		"delivery-status", "calendar", "audio", "video", "charset", "boundary", "name", "filename", "format", "type",
		"protocol", "micalg", "delsp", "flowed", "size", "7bit", "8bit", "binary", "base64", "quoted-printable",
		"attachment", "inline", "utf-8", "UTF-8", "us-ascii", "iso-8859-1", "ISO-8859-1", "gb2312", "GB2312", "gbk", "GBK",
		"gb18030", "GB18030", "us-ascii", "US-ASCII",
	} {
		m[s] = s
	}
	return m
}()

func intern(b []byte) string {
	if s, ok := interned[string(b)]; ok {
		return s
	}
	return string(b)
}

// internLower is intern of the ASCII lower case of b.
func internLower(b []byte) string {
	var tmp [64]byte
	if len(b) > len(tmp) {
		return string(appendLower(nil, b))
	}
	return intern(appendLower(tmp[:0], b))
}

func appendLower(dst, b []byte) []byte {
	for _, c := range b {
		dst = append(dst, lower(c))
	}
	return dst
}
