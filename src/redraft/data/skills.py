"""What the requests of SNIPS and CLINC150 are for, in words, and what that is about."""

from __future__ import annotations

# CLINC150's intents as options put them, where their own names with spaces would not do.
_WORDS = {
    "apr": "annual percentage rate", "pto_balance": "days off left", "pto_request": "request days off",
    "pto_request_status": "days off approved", "pto_used": "days off used", "w2": "w2 tax form",
    "mpg": "miles per gallon", "rollover_401k": "move a 401k", "routing": "routing number",
    "min_payment": "minimum payment", "gas": "fuel left", "gas_type": "type of fuel", "uber": "book a ride",
    "food_last": "how long food lasts", "carry_on": "carry-on rules", "text": "send a text",
    "time": "what time it is", "date": "what day it is", "order": "order something", "yes": "say yes",
    "no": "say no", "maybe": "say maybe", "repeat": "say it again", "cancel": "cancel that",
    "greeting": "say hello", "goodbye": "say goodbye", "thank_you": "say thanks", "balance": "account balance",
    "transfer": "transfer money", "insurance": "insurance benefits", "definition": "define a word",
    "spelling": "spell a word", "play_music": "play music", "update_playlist": "add to a playlist",
    "restaurant_reservation": "book a restaurant", "weather": "weather forecast", "user_name": "name of the user",
    "change_user_name": "rename the user", "change_ai_name": "rename the assistant", "income": "salary",
    "what_is_your_name": "name of the assistant", "timer": "set a timer", "alarm": "set an alarm",
    "reminder": "read reminders", "reminder_update": "set a reminder", "calendar": "read the calendar",
    "calendar_update": "change the calendar", "todo_list": "read the to-do list",
    "todo_list_update": "change the to-do list", "shopping_list": "read the shopping list",
    "shopping_list_update": "change the shopping list", "meeting_schedule": "when meetings are",
    "how_busy": "how busy a place is", "accept_reservations": "whether a place takes reservations",
    "oil_change_how": "how to change oil", "oil_change_when": "when to change oil", "tire_change": "change a tire",
    "jump_start": "jump start a car", "replacement_card_duration": "how long a new card takes",
    "plug_type": "type of plug", "book_flight": "book a flight", "book_hotel": "book a hotel",
    "car_rental": "rent a car", "make_call": "make a call", "find_phone": "find the phone",
    "flip_coin": "flip a coin", "roll_dice": "roll dice", "tell_joke": "tell a joke", "fun_fact": "tell a fact",
    "direct_deposit": "direct deposit", "schedule_meeting": "schedule a meeting",
    "last_maintenance": "last maintenance", "schedule_maintenance": "schedule maintenance",
    "pin_change": "change the pin", "insurance_change": "change insurance",
    "credit_limit_change": "change the credit limit", "change_speed": "change the speed", "pay_bill": "pay a bill",
    "report_lost_card": "report a lost card", "order_checks": "order checks",
    "freeze_account": "freeze the account", "new_card": "apply for a card", "what_song": "name of a song",
}  # fmt: skip

# By what they are about, as CLINC150 groups them; music, weather, books and films apart.
_INTENTS = {
    "banking": """freeze_account routing pin_change bill_due pay_bill account_blocked interest_rate min_payment
        bill_balance transfer order_checks balance spending_history transactions report_fraud""",
    "credit cards": """replacement_card_duration expiration_date damaged_card improve_credit_score report_lost_card
        card_declined credit_limit_change apr redeem_rewards credit_limit rewards_balance application_status
        credit_score new_card international_fees""",
    "food": """food_last confirm_reservation how_busy ingredients_list calories nutrition_info recipe
        restaurant_reviews restaurant_reservation meal_suggestion restaurant_suggestion cancel_reservation
        ingredient_substitution cook_time accept_reservations""",
    "the home": """todo_list_update reminder reminder_update calendar_update order_status shopping_list calendar order
        todo_list shopping_list_update smart_home""",
    "cars and roads": """current_location oil_change_when oil_change_how uber traffic tire_pressure
        schedule_maintenance gas mpg distance directions last_maintenance gas_type tire_change jump_start""",
    "travel": """plug_type travel_notification translate flight_status international_visa timezone exchange_rate
        travel_suggestion travel_alert vaccines lost_luggage book_flight book_hotel carry_on car_rental""",
    "everyday tools": """alarm date find_phone share_location timer make_call calculator definition
        measurement_conversion flip_coin spelling time roll_dice text""",
    "work": """pto_request_status next_holiday insurance_change insurance meeting_schedule payday taxes income
        rollover_401k pto_balance pto_request w2 schedule_meeting direct_deposit pto_used""",
    "small talk": """who_made_you meaning_of_life who_do_you_work_for do_you_have_pets what_are_your_hobbies fun_fact
        what_is_your_name where_are_you_from goodbye thank_you greeting tell_joke are_you_a_bot how_old_are_you
        what_can_i_ask_you""",
    "the assistant": """change_speed user_name whisper_mode yes change_volume no change_language repeat change_accent
        cancel sync_device change_user_name change_ai_name reset_settings maybe""",
    "music": "what_song play_music update_playlist next_song",
    "weather": "weather",
}

# SNIPS' calls: what each is for, and what that is about.
CALLS = {
    "AddToPlaylist": ("add to a playlist", "music"),
    "BookRestaurant": ("book a restaurant", "food"),
    "GetWeather": ("weather forecast", "weather"),
    "PlayMusic": ("play music", "music"),
    "RateBook": ("rate a book", "books and films"),
    "SearchCreativeWork": ("find a title", "books and films"),
    "SearchScreeningEvent": ("film showtimes", "books and films"),
}

# CLINC150's intent by its name: what it is for, and what that is about. "oos" is none of them.
INTENTS = {
    intent: (_WORDS.get(intent, intent.replace("_", " ")), domain)
    for domain, intents in _INTENTS.items()
    for intent in intents.split()
}
DOMAINS = (*_INTENTS, "books and films")
# By what it is about, everything that is for it.
SKILLS = {
    domain: tuple(dict.fromkeys(words for words, about in (*INTENTS.values(), *CALLS.values()) if about == domain))
    for domain in DOMAINS
}
EVERY_SKILL = tuple(skill for skills in SKILLS.values() for skill in skills)
