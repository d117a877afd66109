package bounce

import "strings"

// OtherProvider is the name of all that aren't in the table.
const OtherProvider = "other"

// providers names who runs a server, by the end of its name. Few names, so that they serve as labels of metrics.
var providers = []struct{ suffix, name string }{
	{"google.com", "google"},
	{"googlemail.com", "google"},
	{"gmail.com", "google"},
	{"protection.outlook.com", "microsoft"},
	{"mail.protection.office365.us", "microsoft"},
	{"mx.microsoft", "microsoft"},
	{"outlook.com", "microsoft"},
	{"hotmail.com", "microsoft"},
	{"yahoodns.net", "yahoo"},
	{"yahoo.com", "yahoo"},
	{"aol.com", "yahoo"},
	{"icloud.com", "apple"},
	{"apple.com", "apple"},
	{"qq.com", "tencent"},
	{"exmail.qq.com", "tencent"},
	{"163.com", "netease"},
	{"126.com", "netease"},
	{"netease.com", "netease"},
	{"qiye163.com", "netease"},
	{"aliyun.com", "alibaba"},
	{"mxhichina.com", "alibaba"},
	{"sina.com.cn", "sina"},
	{"sina.com", "sina"},
	{"sohu.com", "sohu"},
	{"139.com", "chinamobile"},
	{"189.cn", "chinatelecom"},
	{"mail.ru", "mailru"},
	{"yandex.ru", "yandex"},
	{"yandex.net", "yandex"},
	{"gmx.net", "1and1"},
	{"gmx.com", "1and1"},
	{"web.de", "1and1"},
	{"kundenserver.de", "1and1"},
	{"1and1.com", "1and1"},
	{"ionos.com", "1and1"},
	{"t-online.de", "telekom"},
	{"orange.fr", "orange"},
	{"wanadoo.fr", "orange"},
	{"free.fr", "free"},
	{"laposte.net", "laposte"},
	{"comcast.net", "comcast"},
	{"charter.net", "charter"},
	{"cox.net", "cox"},
	{"naver.com", "naver"},
	{"docomo.ne.jp", "docomo"},
	{"zoho.com", "zoho"},
	{"zoho.eu", "zoho"},
	{"protonmail.ch", "proton"},
	{"messagingengine.com", "fastmail"},
	{"mimecast.com", "mimecast"},
	{"pphosted.com", "proofpoint"},
	{"ppe-hosted.com", "proofpoint"},
	{"barracudanetworks.com", "barracuda"},
	{"messagelabs.com", "symantec"},
	{"iphmx.com", "cisco"},
	{"trendmicro.com", "trendmicro"},
	{"amazonaws.com", "amazon"},
	{"emailsrvr.com", "rackspace"},
	{"secureserver.net", "godaddy"},
	{"ovh.net", "ovh"},
}

// Provider names who runs a server: "google", "microsoft", or "other".
func Provider(host string) string {
	host, _, _ = strings.Cut(host, " ") // the queue writes the address behind the name
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, p := range providers {
		if rest, ok := strings.CutSuffix(host, p.suffix); ok && (rest == "" || rest[len(rest)-1] == '.') {
			return p.name
		}
	}
	return OtherProvider
}
