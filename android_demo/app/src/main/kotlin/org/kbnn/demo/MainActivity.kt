package org.kbnn.demo

import android.Manifest.permission.CAMERA
import android.app.Activity
import android.content.ActivityNotFoundException
import android.content.Intent
import android.content.pm.PackageManager.PERMISSION_GRANTED
import android.content.res.AssetManager
import android.net.Uri
import android.os.Bundle
import android.view.Surface
import java.io.IOException
import java.util.concurrent.Executors

/** Classifies what the camera sees, or a picture from the gallery. */
class MainActivity : Activity() {
    private lateinit var screen: Screen
    private lateinit var feed: CameraFeed
    private val loader = Executors.newSingleThreadExecutor()
    private var metadata: Metadata? = null
    private var analyzer: Analyzer? = null
    private var selected = 0
    private var used = -1
    private var chosen: Uri? = null
    private var asked = false
    private var resumed = false

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        selected = state?.getInt(SELECTED) ?: 0
        asked = state?.getBoolean(ASKED) ?: false
        chosen = state?.getString(CHOSEN)?.let(Uri::parse)
        screen = Screen(this)
        setContentView(screen.root)
        feed = CameraFeed(applicationContext, ::displayDegrees, { analyzer?.offer(it) }, { onMain { screen.say(it) } })
        screen.camera.setOnClickListener { useCamera() }
        screen.gallery.setOnClickListener { openGallery() }
        load()
    }

    private fun load() {
        val store = models(assets)
        val found = try {
            store.metadata()
        } catch (error: IllegalArgumentException) {
            return screen.say("${error.message}")
        }
        metadata = found
        selected = selected.coerceIn(found.models.indices)
        analyzer = Analyzer(store::open) { outcome -> onMain { screen.show(outcome) } }
        screen.offer(found.models.map { it.entry }, selected, ::choose)
        choose(selected)
    }

    private fun choose(position: Int) {
        // The spinner reports its first selection as well.
        if (position == used) return
        selected = position
        used = position
        metadata?.let { analyzer?.use(it.models[position]) }
        chosen?.let(::classify)
    }

    override fun onResume() {
        super.onResume()
        resumed = true
        if (chosen == null && metadata != null) startCamera()
    }

    override fun onPause() {
        resumed = false
        feed.stop()
        super.onPause()
    }

    override fun onDestroy() {
        analyzer?.close()
        loader.shutdown()
        super.onDestroy()
    }

    override fun onSaveInstanceState(state: Bundle) {
        super.onSaveInstanceState(state)
        state.putInt(SELECTED, selected)
        state.putBoolean(ASKED, asked)
        state.putString(CHOSEN, chosen?.toString())
    }

    private fun useCamera() {
        chosen = null
        asked = false
        startCamera()
    }

    /** Starts the camera, or asks for permission once; after a refusal only the button asks again. */
    private fun startCamera() {
        when {
            checkSelfPermission(CAMERA) == PERMISSION_GRANTED -> feed.start()
            asked -> screen.say(DENIED)
            else -> {
                asked = true
                requestPermissions(arrayOf(CAMERA), PERMISSION)
            }
        }
    }

    override fun onRequestPermissionsResult(request: Int, permissions: Array<out String>, results: IntArray) {
        if (request != PERMISSION || chosen != null) return
        // No results: the dialog was interrupted, for example by turning the phone; onResume asks again.
        when (results.firstOrNull()) {
            null -> asked = false
            PERMISSION_GRANTED -> if (resumed) feed.start()
            else -> screen.say(DENIED)
        }
    }

    private fun openGallery() {
        val intent = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("image/*")
        try {
            startActivityForResult(intent, PICTURE)
        } catch (_: ActivityNotFoundException) {
            screen.say("no app on this device offers pictures")
        }
    }

    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        val uri = data?.data
        if (request != PICTURE || result != RESULT_OK || uri == null) return
        chosen = uri
        feed.stop()
        classify(uri)
    }

    private fun classify(uri: Uri) {
        val gallery = Gallery(contentResolver)
        loader.execute {
            try {
                val picture = gallery.load(uri)
                analyzer?.submit(picture)
            } catch (error: IOException) {
                onMain { screen.say("the picture cannot be read: ${error.message}") }
            } catch (error: RuntimeException) {
                onMain { screen.say("the picture cannot be used: ${error.message}") }
            } catch (_: OutOfMemoryError) {
                onMain { screen.say("the picture is too large for this device's memory") }
            }
        }
    }

    private fun displayDegrees(): Int {
        @Suppress("DEPRECATION") // Its replacement needs API 30.
        return when (windowManager.defaultDisplay.rotation) {
            Surface.ROTATION_90 -> 90
            Surface.ROTATION_180 -> 180
            Surface.ROTATION_270 -> 270
            else -> 0
        }
    }

    /** Results that arrive after the activity was destroyed are dropped. */
    private fun onMain(task: () -> Unit) = runOnUiThread { if (!isDestroyed) task() }

    companion object {
        /** Tests on a JVM have no native runtime, and replace the models of the assets. */
        var models: (AssetManager) -> Models = ::ModelStore

        const val DENIED =
            "Without the camera, pictures from the gallery can be classified. The Camera button asks again; after a " +
                "second no, only the system's settings can allow it."
        private const val PERMISSION = 1
        private const val PICTURE = 2
        private const val SELECTED = "selected"
        private const val ASKED = "asked"
        private const val CHOSEN = "chosen"
    }
}
