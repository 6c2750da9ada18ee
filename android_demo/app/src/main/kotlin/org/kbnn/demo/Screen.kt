package org.kbnn.demo

import android.content.Context
import android.view.Gravity
import android.view.View
import android.view.ViewGroup.LayoutParams.MATCH_PARENT
import android.view.ViewGroup.LayoutParams.WRAP_CONTENT
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.Button
import android.widget.ImageView
import android.widget.LinearLayout
import android.widget.Spinner
import android.widget.TextView
import java.util.Locale

/** The app's only screen: the picture, the guesses, the latency, and the choice of a model and a source of pictures. */
class Screen(context: Context) {
    val picture = ImageView(context).apply { contentDescription = "What the network sees" }
    val guesses = text(context, 20f)
    val figures = text(context, 14f)
    val models = Spinner(context).apply { contentDescription = "Model" }
    val camera = button(context, "Camera")
    val gallery = button(context, "Picture")
    val root: View = LinearLayout(context).apply {
        orientation = LinearLayout.VERTICAL
        fitsSystemWindows = true
        val edge = (16 * resources.displayMetrics.density).toInt()
        setPadding(edge, edge, edge, edge)
        addView(picture, LinearLayout.LayoutParams(MATCH_PARENT, 0, 1f))
        for (view in listOf(guesses, figures, models)) addView(view, LinearLayout.LayoutParams(MATCH_PARENT, WRAP_CONTENT))
        addView(buttons(context), LinearLayout.LayoutParams(MATCH_PARENT, WRAP_CONTENT))
    }

    private fun text(context: Context, size: Float) = TextView(context).apply {
        textSize = size
        accessibilityLiveRegion = View.ACCESSIBILITY_LIVE_REGION_POLITE
    }

    private fun button(context: Context, label: String) = Button(context).apply { text = label }

    private fun buttons(context: Context) = LinearLayout(context).apply {
        gravity = Gravity.CENTER
        for (view in listOf(camera, gallery)) addView(view, LinearLayout.LayoutParams(0, WRAP_CONTENT, 1f))
    }

    /** Offers models to switch between. */
    fun offer(entries: List<ModelEntry>, selected: Int, choose: (Int) -> Unit) {
        models.adapter = ArrayAdapter(
            models.context,
            android.R.layout.simple_spinner_dropdown_item,
            entries.map { it.name },
        )
        models.setSelection(selected)
        models.onItemSelectedListener = object : AdapterView.OnItemSelectedListener {
            override fun onItemSelected(parent: AdapterView<*>?, view: View?, position: Int, id: Long) = choose(position)

            override fun onNothingSelected(parent: AdapterView<*>?) = Unit
        }
    }

    fun show(outcome: Outcome) {
        when (outcome) {
            is Seen -> {
                picture.setImageBitmap(outcome.picture.toBitmap())
                guesses.text = outcome.guesses.joinToString("\n") { describe(it) }
                figures.text = describe(outcome)
            }
            is Failed -> say(outcome.message)
        }
    }

    /** Shows a message instead of guesses. */
    fun say(message: String) {
        guesses.text = message
        figures.text = ""
    }
}

fun describe(guess: Guess): String = String.format(Locale.ROOT, "%s  %.0f %%", guess.label, 100 * guess.confidence)

fun describe(seen: Seen): String = String.format(
    Locale.ROOT,
    "median %.2f ms, p95 %.2f ms (last %d)\n%.1f kB, %.1f %% of the MACs binary",
    seen.medianMs,
    seen.p95Ms,
    seen.inferences,
    seen.model.sizeBytes / 1000.0,
    100 * seen.model.binaryShare,
)
