"""The wire's own scenarios, over streams of events: what is said goes by HTTP, what comes comes as events."""

import pytest

from tests.integration.wire.test_ack import (
    test_ack_never_goes_backwards,
    test_ack_of_several_streams_at_once,
    test_connections_of_one_device_share_the_offset,
    test_each_device_has_its_own_offsets,
    test_what_was_not_acknowledged_comes_again,
)
from tests.integration.wire.test_groups import (
    test_both_devices_of_who_joins_get_the_group_from_there_on,
    test_both_devices_of_who_leaves_hear_nothing_more_of_the_group,
    test_device_that_was_away_gets_what_it_missed_before_the_user_left_and_nothing_later,
    test_device_that_was_away_while_another_joined_gets_the_group_from_the_point_of_joining,
    test_group_may_have_any_name,
    test_last_member_may_leave_and_others_come_to_the_same_stream,
    test_who_comes_back_to_a_group_sees_nothing_of_the_time_between,
)
from tests.integration.wire.test_hello import (
    test_device_may_have_any_name,
    test_missed_counts_what_is_to_come,
    test_new_device_starts_at_the_floor_of_its_inbox,
    test_new_device_starts_at_the_point_of_joining_in_a_group,
    test_new_device_starts_now_in_all,
    test_ping_of_welcome_is_the_setting,
    test_streams_above_the_limit_of_one_frame_come_in_further_frames,
    test_welcome_says_who_where_which_history_and_what_the_limits_are,
)
from tests.integration.wire.test_live import (
    test_joining_a_group_later_is_not_told_with_a_live,
    test_large_bodies_leave_a_stream_live,
    test_live_comes_at_once_when_nothing_was_missed,
    test_live_comes_once_and_after_all_that_was_missed,
)

__all__ = [
    "test_ack_never_goes_backwards",
    "test_ack_of_several_streams_at_once",
    "test_both_devices_of_who_joins_get_the_group_from_there_on",
    "test_both_devices_of_who_leaves_hear_nothing_more_of_the_group",
    "test_connections_of_one_device_share_the_offset",
    "test_device_may_have_any_name",
    "test_device_that_was_away_gets_what_it_missed_before_the_user_left_and_nothing_later",
    "test_device_that_was_away_while_another_joined_gets_the_group_from_the_point_of_joining",
    "test_each_device_has_its_own_offsets",
    "test_group_may_have_any_name",
    "test_joining_a_group_later_is_not_told_with_a_live",
    "test_large_bodies_leave_a_stream_live",
    "test_last_member_may_leave_and_others_come_to_the_same_stream",
    "test_live_comes_at_once_when_nothing_was_missed",
    "test_live_comes_once_and_after_all_that_was_missed",
    "test_missed_counts_what_is_to_come",
    "test_new_device_starts_at_the_floor_of_its_inbox",
    "test_new_device_starts_at_the_point_of_joining_in_a_group",
    "test_new_device_starts_now_in_all",
    "test_ping_of_welcome_is_the_setting",
    "test_streams_above_the_limit_of_one_frame_come_in_further_frames",
    "test_welcome_says_who_where_which_history_and_what_the_limits_are",
    "test_what_was_not_acknowledged_comes_again",
    "test_who_comes_back_to_a_group_sees_nothing_of_the_time_between",
]

pytestmark = pytest.mark.anyio
