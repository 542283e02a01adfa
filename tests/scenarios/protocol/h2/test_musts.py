"""What RFC 9113 (sections 3 to 8) and RFC 7541 demand of a server or a client, rule by rule, and what proves it.

A proof is the beginning of the name of cases (`both`: of clients and of servers; `client`, `server`: of what these
send), or a test, by its file and name. A rule that another one contains has no row of its own.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import h2_cases_of_clients, h2_cases_of_servers

TESTS = Path(__file__).parents[3]
HERE = "scenarios/protocol/h2/"
CODEC = "unit/protocol/h2/"
PLANE = "unit/dataplane/"

Row = tuple[str, str, str, str]
BOTH: tuple[Row, ...] = (
    # section, rule, whose cases, beginning of their names
    ("3.4", "the first frame is SETTINGS", "both", "3.4-PING_before_SETTINGS"),
    ("3.4", "and no acknowledgement", "both", "3.4-SETTINGS_ACK_before_SETTINGS"),
    ("3.4", "a bad preface ends the connection", "client", "3.4-preface_with_another_end"),
    ("3.4", "a client may go on before it has heard anything", "client", "3.4-a_request_at_once"),
    ("4.1", "unknown types are ignored", "both", "4.1-unknown_type"),
    ("4.1", "flags without a meaning are ignored", "both", "4.1-unknown_flags"),
    ("4.1", "the reserved bit is ignored", "both", "4.1-reserved_bit"),
    ("4.2", "frames of 2^14 octets are taken", "both", "4.2-DATA_as_large_as_allowed"),
    ("4.2", "larger ones are FRAME_SIZE_ERROR", "both", "4.2-frame_of_type_0x0_above"),
    ("4.3", "blocks that are refused are decoded", "both", "4.3-the_table_has_what_a_malformed"),
    ("4.3", "a block that cannot be decoded is COMPRESSION_ERROR", "both", "7541-2.3.3-index_far"),
    ("4.3", "a block is contiguous", "both", "6.10-DATA_within_a_field_block"),
    ("5.1", "idle: only HEADERS and PRIORITY", "both", "5.1-DATA_on_an_idle_stream"),
    ("5.1", "idle: no RST_STREAM", "both", "5.1-RST_STREAM_on_an_idle_stream"),
    ("5.1", "idle: no WINDOW_UPDATE", "both", "5.1-WINDOW_UPDATE_on_an_idle_stream"),
    ("5.1", "half-closed: DATA is STREAM_CLOSED", "client", "5.1-DATA_behind_the_end"),
    ("5.1", "half-closed: HEADERS are STREAM_CLOSED", "client", "5.1-HEADERS_behind_the_end"),
    ("5.1", "half-closed: WINDOW_UPDATE is allowed", "client", "5.1-WINDOW_UPDATE_behind_the_end"),
    ("5.1", "closed by END_STREAM: DATA is STREAM_CLOSED", "client", "5.1-DATA_on_a_stream_that_is_closed"),
    ("5.1", "the same of answers", "server", "5.1-DATA_behind_an_answer"),
    ("5.1", "closed by the peer's RST_STREAM: DATA is STREAM_CLOSED", "client", "5.1-DATA_on_a_stream_that_the_client"),
    ("5.1", "the same of servers", "server", "5.1-DATA_on_a_stream_that_the_server_has_reset"),
    ("5.1", "closed by our RST_STREAM: what is under way is ignored", "client", "5.1-a_frame_on_a_stream_that_lbproxy"),
    ("5.1", "PRIORITY is allowed in any state", "both", "5.1-PRIORITY_on_an_idle_stream"),
    ("5.1.1", "clients have odd numbers", "both", "5.1.1-HEADERS_on_stream_2"),
    ("5.1.1", "numbers go up", "client", "5.1.1-a_stream_below_one_that_was_opened"),
    ("5.1.1", "those that were left out are closed", "client", "5.1.1-DATA_on_a_stream_that_was_left_out"),
    ("5.1.2", "no more streams than were allowed", "client", "5.1.2-a_stream_beyond"),
    ("5.1.2", "closed streams do not count", "client", "5.1.2-a_stream_that_is_reset_makes_room"),
    ("5.4.2", "no RST_STREAM answers one", "client", "5.1-RST_STREAM_on_a_stream_that_the_client_has_reset"),
    ("5.4.2", "frames behind our RST_STREAM do no harm", "server", "5.4.2-frames_on_a_stream"),
    ("5.5", "an unknown frame within a block is PROTOCOL_ERROR", "both", "5.5-unknown_type_within"),
    ("6.1", "DATA belongs to a stream", "both", "6.1-DATA_on_stream_0"),
    ("6.1", "padding is shorter than the frame", "both", "6.1-padding_as_long_as_the_frame"),
    ("6.2", "HEADERS belong to a stream", "both", "6.2-HEADERS_on_stream_0"),
    ("6.2", "padding is shorter than the frame", "both", "6.2-padding_longer_than_the_frame"),
    ("6.3", "PRIORITY belongs to a stream", "both", "6.3-PRIORITY_on_stream_0"),
    ("6.3", "and has 5 octets", "both", "6.3-PRIORITY_of_4_octets"),
    ("6.4", "RST_STREAM belongs to a stream", "both", "6.4-RST_STREAM_on_stream_0"),
    ("6.4", "and has 4 octets", "both", "6.4-RST_STREAM_of_3_octets"),
    ("6.5", "an acknowledgement is empty", "both", "6.5-SETTINGS_ACK_with_a_payload"),
    ("6.5", "SETTINGS belong to the connection", "both", "6.5-SETTINGS_on_a_stream"),
    ("6.5", "and have a multiple of 6 octets", "both", "6.5-SETTINGS_of_5_octets"),
    ("6.5.2", "ENABLE_PUSH is 0 or 1", "both", "6.5.2-ENABLE_PUSH_of_2"),
    ("6.5.2", "and never 1 of a server", "server", "6.5.2-ENABLE_PUSH_of_1_by_a_server"),
    ("6.5.2", "windows end at 2^31-1", "both", "6.5.2-INITIAL_WINDOW_SIZE_of_2^31"),
    ("6.5.2", "frames may be 2^14 octets or more", "both", "6.5.2-MAX_FRAME_SIZE_of_16383"),
    ("6.5.2", "and less than 2^24", "both", "6.5.2-MAX_FRAME_SIZE_of_16777216"),
    ("6.5.2", "unknown settings are ignored", "both", "6.5.2-a_setting_that_nobody_knows"),
    ("6.5.3", "values are taken in order", "both", "6.5.3-the_last_of_equal_settings_holds"),
    ("6.5.3", "each of them", "both", "6.5.3-a_bad_value_that_a_later_one_mends"),
    ("6.6", "no PUSH_PROMISE of a client, or where push is off", "both", "6.6-PUSH_PROMISE"),
    ("6.7", "PING belongs to the connection", "both", "6.7-PING_on_a_stream"),
    ("6.7", "and has 8 octets", "both", "6.7-PING_of_7_octets"),
    ("6.8", "GOAWAY belongs to the connection", "both", "6.8-GOAWAY_on_a_stream"),
    ("6.9", "WINDOW_UPDATE has 4 octets", "both", "6.9-WINDOW_UPDATE_of_3_octets"),
    ("6.9", "0 is an error of the stream", "both", "6.9-WINDOW_UPDATE_by_0_on_a_stream"),
    ("6.9", "or of the connection", "both", "6.9-WINDOW_UPDATE_by_0"),
    ("6.9.1", "no window of a stream above 2^31-1", "both", "6.9.1-window_of_a_stream_above"),
    ("6.9.1", "nor of the connection", "both", "6.9.1-window_of_the_connection_above"),
    ("6.9.2", "nor by SETTINGS", "both", "6.9.2-INITIAL_WINDOW_SIZE_makes"),
    ("6.10", "CONTINUATION belongs to a stream", "both", "6.10-CONTINUATION_on_stream_0"),
    ("6.10", "and follows HEADERS without END_HEADERS", "both", "6.10-CONTINUATION_behind_END_HEADERS"),
    ("6.10", "of the same stream", "both", "6.10-CONTINUATION_of_another_stream"),
    ("7", "unknown codes change nothing", "both", "7-RST_STREAM_with_a_code"),
    ("8.1", "trailers end the stream", "both", "8.1-trailers_that_do_not_end_the_stream"),
    ("8.1", "an interim answer does not", "server", "8.1-100_that_ends_the_stream"),
    ("8.1", "no pseudo-fields in trailers", "both", "8.1-trailers_with_a_pseudo-field"),
    ("8.1.1", "content-length is the sum of DATA", "both", "8.1.1-content-length_longer_than_the_body"),
    ("8.1.1", "also before trailers", "both", "8.1.1-content-length_and_trailers_before_its_end"),
    ("8.1.1", "but of answers that have no body", "server", "8.1.1-304_with_a_content-length"),
    ("8.2.1", "no upper case in names", "both", "8.2.1-0x41_in_a_name"),
    ("8.2.1", "no controls, spaces or octets above ASCII in names", "both", "8.2.1-0xff_in_a_name"),
    ("8.2.1", "no colon in names but of pseudo-fields", "client", "8.2.1-a_name_with_a_colon_within"),
    ("8.2.1", "no NUL, LF or CR in values", "both", "8.2.1-CR_within"),
    ("8.2.1", "no white space around values", "both", "8.2.1-SP_at_the_end_of_a_value"),
    ("8.2.2", "no fields of a connection", "both", "8.2.2-transfer-encoding"),
    ("8.2.2", "te is trailers", "client", "8.2.2-te:_gzip"),
    ("8.3", "pseudo-fields come first", "both", "8.3-:"),
    ("8.3", "no undefined ones", "client", "8.3-an_unknown_pseudo-field"),
    ("8.3", "no pseudo-fields of requests in answers", "server", "8.3-:path_in_an_answer"),
    ("8.3", "nor the reverse", "client", "8.3-:status_in_a_request"),
    ("8.3.1", "exactly one :method", "client", "8.3.1-:method_twice"),
    ("8.3.1", "exactly one :scheme", "client", "8.3.1-:scheme_is_missing"),
    ("8.3.1", ":path is not empty", "client", "8.3.1-:path_is_empty"),
    ("8.3.1", "an asterisk with OPTIONS only", "client", "8.3.1-:path_is_an_asterisk_with_POST"),
    ("8.3.1", "no user information in :authority", "client", "8.3.1-:authority_with_user_information"),
    ("8.3.1", ":authority and Host are equal", "client", "8.3.1-:authority_and_Host_differ"),
    ("8.3.2", "exactly one :status", "server", "8.3.2-no_:status"),
    ("8.4", "a push is PROTOCOL_ERROR", "server", "8.4-a_push_is_refused"),
    ("8.4", "of a client, too", "client", "8.4-a_client_that_pushes"),
    ("8.5", "CONNECT has no :scheme", "client", "8.5-CONNECT_with_:scheme"),
    ("8.5", "nor :path", "client", "8.5-CONNECT_with_:path"),
    ("8.5", "and has :authority", "client", "8.5-CONNECT_without_:authority"),
    ("8.6", "no 101", "server", "8.6-101"),
    ("8441-3", "ENABLE_CONNECT_PROTOCOL is 0 or 1", "both", "6.5.2-ENABLE_CONNECT_PROTOCOL_of_2"),
    ("8441-3", "and not 0 after 1", "both", "6.5.2-ENABLE_CONNECT_PROTOCOL_of_1_and_then_0"),
    ("7541-2.3.3", "no index beyond the tables", "both", "7541-2.3.3-index_just_beyond"),
    ("7541-4.2", "no table above the limit", "both", "7541-4.2-table_size_above_the_limit"),
    ("7541-4.2", "sizes change before the first field", "both", "7541-4.2-table_size_behind_a_field"),
    ("7541-4.3", "a smaller table evicts", "both", "7541-4.2-an_entry_that_was_evicted"),
    ("7541-4.4", "an entry that is too large is no error", "both", "7541-4.4-an_entry_larger"),
    ("7541-5.1", "integers that are too large are an error", "both", "7541-5.1-integer_of_too_many_octets"),
    ("7541-5.2", "Huffman padding is shorter than 8 bits", "both", "7541-5.2-Huffman_padding_of_8_bits"),
    ("7541-5.2", "and made of ones", "both", "7541-5.2-Huffman_padding_of_zeros"),
    ("7541-5.2", "no EOS", "both", "7541-5.2-Huffman_code_of_EOS"),
    ("7541-6.1", "no index 0", "both", "7541-6.1-index_0"),
)
TALKS: tuple[Row, ...] = (
    # section, rule, file, test
    ("3.1", "Upgrade: h2c is no way to HTTP/2", PLANE + "client/test_http2.py", "test_upgrade_to_h2c_is_not_taken"),
    ("3.2", "ALPN chooses", "scenarios/tls/test_from_clients.py", "test_alpn"),
    ("3.3", "prior knowledge", "scenarios/http/test_http2_clients.py", "test_curl_with_prior_knowledge"),
    ("3.4", "a server begins with SETTINGS", HERE + "test_talks_with_clients.py", "test_3_4_"),
    ("3.4", "a client with its preface", HERE + "test_talks_with_servers.py", "test_3_4_"),
    ("4.3.1", "a smaller table is announced", HERE + "test_talks_with_clients.py", "test_4_3_1_a_smaller"),
    ("4.3.1", "to servers, too", HERE + "test_talks_with_servers.py", "test_4_3_1_a_smaller"),
    ("5.1.1", "numbers that run out end the connection", CODEC + "test_outgoing.py", "test_numbers_of_streams"),
    ("5.1.2", "no more streams than the server allows", HERE + "test_unprocessed.py", "test_5_1_2_"),
    ("5.2.1", "windows of the connection hold", HERE + "test_frames_of_clients.py", "test_5_2_1_"),
    ("5.4.1", "GOAWAY with the last stream, then the end", HERE + "test_talks_with_clients.py", "test_5_4_1_"),
    ("5.4.3", "the end of TCP", HERE + "test_frames_of_clients.py", "test_5_4_3_"),
    ("6.5.3", "each SETTINGS is acknowledged", HERE + "test_frames_of_clients.py", "test_6_5_3_"),
    ("6.5.3", "those of servers, too", HERE + "test_talks_with_servers.py", "test_6_5_3_"),
    ("6.7", "PING is answered with its octets", HERE + "test_frames_of_clients.py", "test_6_7_"),
    ("6.8", "no stream after GOAWAY", CODEC + "test_outgoing.py", "test_no_stream_is_opened_after_goaway"),
    ("6.8", "what comes behind GOAWAY changes the tables only", CODEC + "test_control.py", "test_after_goaway_new"),
    ("6.8", "the last number never grows", CODEC + "test_control.py", "test_a_last_stream_never_grows"),
    ("6.8", "streams above the last are not processed", HERE + "test_unprocessed.py", "test_6_8_goaway_sends"),
    ("6.9", "octets of streams that were reset count", HERE + "test_talks_with_clients.py", "test_6_9_octets"),
    ("6.9.1", "no DATA beyond a stream's window", HERE + "test_frames_of_clients.py", "test_6_9_1_data_beyond"),
    ("6.9.1", "of a server", PLANE + "server/test_http2_stream.py", "test_a_server_that_says_more_than_its_window"),
    ("6.9.2", "windows may be negative", HERE + "test_frames_of_clients.py", "test_6_9_2_"),
    ("6.9.2", "towards servers, too", HERE + "test_talks_with_servers.py", "test_6_9_2_"),
    (
        "8.1",
        "NO_ERROR behind an answer",
        PLANE + "server/test_http2_stream.py",
        "test_an_early_answer_that_is_followed",
    ),
    ("8.1.1", "nothing malformed goes on", PLANE + "client/test_http2_stream.py", "test_a_malformed_request_reaches"),
    ("8.2.2", "fields of a connection stay behind", HERE + "test_frames_of_clients.py", "test_8_3_2_"),
    ("8.2.3", "crumbs are joined", HERE + "test_frames_of_clients.py", "test_8_2_3_"),
    ("8.3.1", "requests of HTTP/1 to servers", HERE + "test_talks_with_servers.py", "test_8_3_1_"),
    ("8.7", "what was refused may be sent again", HERE + "test_unprocessed.py", "test_8_7_a_refused"),
    ("7541-4.2", "the smallest size is told", HERE + "test_talks_with_clients.py", "test_4_3_1_of_a_table"),
    ("7541-5.1", "integers", CODEC + "test_encoder.py", "test_integers"),
    (
        "7541-6.2.3",
        "never indexed stays so",
        PLANE + "server/test_http2_stream.py",
        "test_never_indexed_marks_go_on",
    ),
)
NAMES = {
    "client": [case.ident for case in h2_cases_of_clients.cases()],
    "server": [case.ident for case in h2_cases_of_servers.cases()],
}


@pytest.mark.parametrize("row", BOTH, ids=lambda row: f"{row[0]} {row[1]}")
def test_a_rule_has_cases(row: Row) -> None:
    _, _, whose, begin = row
    for side in ("client", "server") if whose == "both" else (whose,):
        assert any(name.startswith(begin) for name in NAMES[side]), (side, begin)


@pytest.mark.parametrize("row", TALKS, ids=lambda row: f"{row[0]} {row[1]}")
def test_a_rule_has_a_test(row: Row) -> None:
    _, _, file, begin = row
    assert re.search(rf"^def {re.escape(begin)}", (TESTS / file).read_text(), re.MULTILINE), (file, begin)


def test_no_rule_stands_twice() -> None:
    rules = [(section, rule, proof) for section, rule, _, proof in (*BOTH, *TALKS)]
    assert len(set(rules)) == len(rules)
