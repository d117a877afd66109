package main

// settingWords are the settings in Chinese; the English words stand in package directory, where `waxwing config show`
// takes them from.
var settingWords = map[string]string{
	"account.language":             "新账号的语言：en 或 zh",
	"account.quota_bytes":          "新账号可占用的字节数；0 为不限",
	"account.quota_messages":       "新账号可保存的邮件数；0 为不限",
	"address.subaddress_separator": "user+tag@domain 中用户与标签之间的字符，可为 + - = _ # ~ 之一",
	"folder.archive":               "新账号归档文件夹的名称",
	"folder.drafts":                "新账号草稿箱的名称",
	"folder.junk":                  "新账号垃圾邮件文件夹的名称",
	"folder.sent":                  "新账号已发送文件夹的名称",
	"folder.trash":                 "新账号已删除文件夹的名称",
	"message.recipients":           "每封邮件的收件人数：100 至 10000",
	"message.size":                 "每封邮件的字节数：65536 至 1073741824",
	"retention.junk_days":          "垃圾邮件文件夹中的邮件保留的天数，到期移除；0 为不移除",
	"retention.tombstone_days":     "为邮件程序记住已移除邮件编号的天数：7 至 36500；0 为永久",
	"retention.trash_days":         "已删除文件夹中的邮件保留的天数，到期移除；0 为不移除",
	"scrub.rate":                   "后台反复读取全部邮件以发现损坏的速度，字节每秒；0 为不进行",
	"undelete.days":                "管理员可恢复已删除邮件的天数；0 为立即删除",
	"undelete.erase_days":          "不可再恢复的邮件在多少天之内从磁盘上抹去：1 至 365",
}

// metricWords are the metrics in Chinese; the English words are the help texts that the server itself gives.
var metricWords = map[string]string{
	"waxwing_build_info":                "恒为 1，版本在标签中。",
	"waxwing_connections_refused_total": "未受理的连接数，按触及的限制区分。",
	"waxwing_imap_command_seconds":      "IMAP 命令耗时。",
	"waxwing_panics_total":              "因程序缺陷而结束的会话数，每次都在日志中留有调用栈。",
	"waxwing_pop3_messages_total":       "RETR 发送的邮件数。",
	"waxwing_pop3_octets_total":         "上述邮件的字节数。",
	"waxwing_queue_attempt_seconds":     "向收件人投递的尝试耗时，按结果区分。",
	"waxwing_queue_damaged_total":       "因数据或邮件无法读取而搁置的收件人数。",
	"waxwing_queue_messages":            "队列中的邮件数。",
	"waxwing_queue_oldest_seconds":      "队列中最早一封邮件的等待秒数；队列为空时为 0。",
	"waxwing_queue_recipients":          "队列中的收件人数，按状态区分。",
	"waxwing_queue_reports_total":       "发给发件人的投递状态通知数。",
	"waxwing_search_indexed_total":      "正文已进入搜索索引的邮件数。",
	"waxwing_search_lag_messages":       "搜索索引尚待收录的邮件数（约数）；在此之前，搜索会直接读取这些邮件。",
	"waxwing_search_rebuilds_total":     "因文件损坏或过时而重新建立搜索索引的次数。",
	"waxwing_quota_warnings_total":      "配额即将用满的提醒数，按达到的百分比区分。",
	"waxwing_scrub_octets":              "后台巡检在本轮已读取的邮件字节数。",
	"waxwing_scrub_round_seconds":       "上一轮完整巡检的开始时间（自 1970 年起的秒数），首轮完成前为 0。",
	"waxwing_store_damaged_contents":    "已知损坏的邮件内容数。",
	"waxwing_sessions":                  "当前会话数。",
	"waxwing_sessions_total":            "累计会话数。",
	"waxwing_sign_ins_total":            "登录尝试次数。",
	"waxwing_smtp_message_seconds":      "从 MAIL 到邮件末尾应答的时间。",
	"waxwing_smtp_messages_total":       "SMTP 中传输结束的邮件数，按应答代码区分。",
	"waxwing_smtp_octets_total":         "上述邮件的字节数。",
	"waxwing_tls_handshakes_total":      "SMTP 会话的 TLS 握手次数。",
}
