package main

import "maps"

// The words of the front door's settings in Chinese.
var guardSettingWords = map[string]string{
	"guard.exempt":                  "不受限制和延迟约束的网络，以空格分隔；只在回环地址监听的服务器自动豁免回环地址",
	"guard.greet_delay_ms":          "25 端口的陌生人在问候之前须保持安静的毫秒数：0 至 20000",
	"guard.pipelining":              "25 端口上在 EHLO 或 DATA 的应答之前就到来的命令（RFC 2920 第 3.1 节）：refuse（拒绝）或 allow（允许）",
	"guard.tarpit_after":            "一次会话中不延迟的错误次数，此后每次错误的应答越来越慢：0 至 1000",
	"guard.tarpit_max_ms":           "最长延迟的毫秒数：0 至 30000",
	"guard.tarpit_step_ms":          "每多一次错误增加的延迟毫秒数；0 为不延迟：0 至 10000",
	"limit.commands_per_address":    "每个地址（IPv6：每个 /64）每分钟的 SMTP 命令数；0 为不限",
	"limit.connections_per_address": "每个地址（IPv6：每个 /64）每分钟的连接数；0 为不限",
	"limit.connections_per_network": "每个网络（IPv4：/24，IPv6：/48）每分钟的连接数；0 为不限",
	"limit.errors_per_address":      "每个地址（IPv6：每个 /64）每分钟的错误命令、登录失败和抢先发言次数；0 为不限",
	"limit.errors_per_network":      "每个网络（IPv4：/24，IPv6：/48）每分钟的同类错误次数；0 为不限",
	"limit.messages_per_address":    "每个地址（IPv6：每个 /64）每小时的邮件数；0 为不限",
	"limit.messages_per_network":    "每个网络（IPv4：/24，IPv6：/48）每小时的邮件数；0 为不限",
	"limit.messages_per_recipient":  "每个收件人每小时的邮件数；0 为不限",
	"limit.messages_per_sender":     "每个信封发件人每小时的邮件数；0 为不限",
	"limit.octets_per_address":      "每个地址（IPv6：每个 /64）每小时的邮件字节数；0 为不限",
	"limit.octets_per_network":      "每个网络（IPv4：/24，IPv6：/48）每小时的邮件字节数；0 为不限",
	"limit.open_per_network":        "每个网络（IPv4：/24，IPv6：/48）同时打开的 SMTP 连接数；0 为不限",
	"limit.recipients_per_address":  "每个地址（IPv6：每个 /64）每小时的收件人数；0 为不限",
	"limit.recipients_per_network":  "每个网络（IPv4：/24，IPv6：/48）每小时的收件人数；0 为不限",
	"limit.recipients_per_sender":   "每个信封发件人每小时的收件人数；0 为不限",
	"load.descriptors_percent":      "文件描述符使用达到百分之几时，暂缓新的 SMTP 会话：10 至 100",
	"load.memory_percent":           "内存使用达到限额（GOMEMLIMIT 或控制组的限额）的百分之几时，暂缓收信：10 至 100",
	"load.writer_queue":             "等待数据库的事务达到多少时，暂缓收信：100 至 1000000",
	"sending.anomaly":               "账号的发信方式前所未有时如何处置：hold（搁置）、alert（报警）或 off（不看）",
	"sending.anomaly_domains":       "账号每小时首次发往的目的域数；0 为不看：0 至 100000",
	"sending.anomaly_end_sessions":  "账号被搁置时是否结束其会话：yes 或 no",
	"sending.anomaly_factor":        "每小时收件人数达到平常的多少倍算突增；0 为不看：0 至 100000",
	"sending.anomaly_failures":      "一小时内账号的收件人最终失败的百分比；0 为不看：0 至 100",
	"sending.anomaly_floor":         "每小时收件人数在此以下时不算异常：1 至 1000000000",
	"sending.anomaly_networks":      "一小时内从多少个网络登录账号；0 为不看：0 至 1000",
	"sending.messages_per_day":      "每个账号每天的邮件数；0 为不限：0 至 1000000000",
	"sending.messages_per_hour":     "每个账号每小时的邮件数；0 为不限：0 至 1000000000",
	"sending.recipients_per_day":    "每个账号每天的收件人数；0 为不限：0 至 1000000000",
	"sending.recipients_per_hour":   "每个账号每小时的收件人数；0 为不限：0 至 1000000000",
}

// The words of its metrics.
var guardMetricWords = map[string]string{
	"waxwing_sending_anomalies_total": "发信方式前所未有的账号数；每次都写入日志，其邮件被搁置，除非设置另有规定。",
	"waxwing_guard_verdicts_total":    "前门对来访者作出的裁决数（放行除外），按检查、阶段和处置（delay 延迟、defer 暂拒、refuse 拒绝）区分。",
}

func init() {
	maps.Copy(settingWords, guardSettingWords)
	maps.Copy(metricWords, guardMetricWords)
}
